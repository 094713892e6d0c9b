"""The files of jobs.

outputs    the files of `job.save`
inputs     downloads: `File` inputs and `job.fetch`
sources    the ways in which callers name a file
scratch    their folder
"""
