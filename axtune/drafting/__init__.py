"""Questions and answers drafted from documents by a server with OpenAI's interface.

Imports no torch.
"""
