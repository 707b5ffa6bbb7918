"""An HTTP service for a trained model, with dynamic batching of concurrent requests."""
