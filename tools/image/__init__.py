"""Builds the base image, a template and the example, and makes each serve jobs: `make image`."""
