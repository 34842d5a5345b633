"""How a query scores a key: one file a score (see `singlestream.model.attention`)."""
