"""The training loop: it knows no task, objectives know no loop."""
