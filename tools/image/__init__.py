"""Builds the base image, a template and the example, and lets each serve jobs: `make image`.

checks: what an image must do. containers: run one. pip_config: give builds this machine's pip settings. stand_in: a
replacement for the public Python image.
"""
