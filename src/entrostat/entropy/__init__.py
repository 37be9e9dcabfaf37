"""Sensitivity, polarity, flow and regions: how an update moves entropy."""
