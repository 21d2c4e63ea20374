"""What tasks with a new head have in common."""
