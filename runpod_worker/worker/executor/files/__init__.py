"""The files of jobs.

outputs    what `job.save` keeps
inputs     downloads: `File` inputs and `job.fetch`
sources    how a caller names a file
scratch    the folder they are in
"""
