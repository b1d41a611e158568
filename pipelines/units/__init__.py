"""Discrete units of speech and back: models, their import, the encoder, codebooks and vocoders.

A library that several pipelines share. This module, `known` and `models` import nothing heavy.
"""
