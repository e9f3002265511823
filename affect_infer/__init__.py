"""Multimodal emotion inference: frames from the store; face, audio and facial action units live."""
