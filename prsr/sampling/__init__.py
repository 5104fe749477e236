"""From low- to high-resolution images: requests, noise, the sampler and the baselines."""
