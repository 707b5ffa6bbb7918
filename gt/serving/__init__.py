"""A trained model behind HTTP: requests that come together are answered together."""
