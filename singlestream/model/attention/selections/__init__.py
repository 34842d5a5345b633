"""Which keys a query reads, and how much of each: one file a selection (see `singlestream.model.attention`)."""
