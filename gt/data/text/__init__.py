"""Text: language modelling and classification."""
