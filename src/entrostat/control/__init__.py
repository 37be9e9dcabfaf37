"""Strategies that steer entropy, and the controller a trainer talks to."""
