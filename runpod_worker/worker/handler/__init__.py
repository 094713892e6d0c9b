"""The user's function, and the job that it gets.

declaration   what a user declared about a worker: the handler of one of four kinds, the model, hooks
job           `Job` and `File`
chat          OpenAI chat completions for handlers
"""
