"""Other trainers under an entropy controller, in folders by kind; a host is imported by name, so none needs another.

trl/, verl/   the controller, campaigns and the watchdog in TRL and verl
losses/       the losses of further trainers, steered
trackers      TensorBoard, Weights & Biases, MLflow, Comet, Aim, SwanLab, trackio
"""
