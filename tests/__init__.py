"""Tests of this project alone; what any event loop must do is tested in `spec/`."""
