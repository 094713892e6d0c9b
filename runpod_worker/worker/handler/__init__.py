"""What a user's function is and sees.

kinds   the four kinds of handler
job     `Job` and `File`
chat    OpenAI chat completions for handlers
"""
