"""The web application: the sampling page and the human study."""
