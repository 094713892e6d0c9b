"""A user's function, and what it sees.

declaration   everything a user declared about one worker
kinds         the four kinds of handler
job           `Job` and `File`
chat          OpenAI chat completions for handlers
"""
