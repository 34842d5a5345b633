"""How far apart two tokens are, in their score: one file a way (see `singlestream.model.attention`)."""
