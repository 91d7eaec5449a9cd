"""A BDK wallet over our own REST interface."""
