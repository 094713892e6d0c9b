"""Fitness checks, at the path of RunPod's SDK."""

from runpod_worker.serverless.fitness import clear_fitness_checks, register_fitness_check

__all__ = ["clear_fitness_checks", "register_fitness_check"]
