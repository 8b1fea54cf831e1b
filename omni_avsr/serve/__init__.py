"""A server: OpenAI's transcription API, captions over a WebSocket, and a page."""
