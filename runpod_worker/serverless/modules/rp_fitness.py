"""Fitness checks, at the path of RunPod's SDK."""

from runpod_worker.serverless.fitness import clear_fitness_checks, register_fitness_check, run_fitness_checks

__all__ = ["clear_fitness_checks", "register_fitness_check", "run_fitness_checks"]
