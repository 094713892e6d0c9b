"""The files of jobs.

outputs               what `job.save` keeps
inputs, jobfiles      downloads of `File` inputs and `job.fetch`
sources               what a job may name
scratch               the folders
"""
