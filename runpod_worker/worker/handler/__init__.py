"""The user's function, and the job that it gets.

declaration   everything that a user declared about a worker
kinds         the four kinds of handler
job           `Job` and `File`
chat          OpenAI chat completions for handlers
"""
