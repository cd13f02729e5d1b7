"""What is computed from predictions: of samples, patients, pixels and objects, exact for any number of workers."""
