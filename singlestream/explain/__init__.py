"""What a model does: attention maps, where words point, how sure its answers are, and the page that shows it."""
