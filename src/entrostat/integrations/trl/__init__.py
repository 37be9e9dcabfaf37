"""TRL: its GRPOTrainer under a controller, campaigns with it, and the watchdog in any trainer of Transformers."""
