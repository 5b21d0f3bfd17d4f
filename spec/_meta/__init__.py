"""Tests of the suite itself; not run on the loops under test."""
