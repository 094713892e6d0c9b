"""Fitness checks, where RunPod's SDK has them."""

from runpod_worker.serverless.fitness import clear_fitness_checks, register_fitness_check

__all__ = ["clear_fitness_checks", "register_fitness_check"]
