"""verl: policy losses by name, its trainer under a controller, campaigns with it, and the watchdog."""
