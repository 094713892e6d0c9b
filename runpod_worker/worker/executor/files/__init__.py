"""The files of jobs.

outputs    what `job.save` keeps
inputs     downloads for all jobs: `File` inputs and `job.fetch`
jobfiles   the files that one job names
sources    how a caller names a file
scratch    the folder they are in
"""
