"""Where release 0.1 had `runpod_worker.openai`; removed in 0.3."""

from .handler.chat import ChatRequest, Error, chat

__all__ = ["ChatRequest", "Error", "chat"]
