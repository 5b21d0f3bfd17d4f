"""What goes wrong: whom it reaches, with which context, and what the log and debug mode say of it."""
