"""Predictions of trained models: tables, calibration, and the Python interface."""
