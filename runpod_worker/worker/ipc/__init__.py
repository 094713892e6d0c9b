"""What agent and executor say to each other.

messages   the frames
channel    how they travel
"""
