"""Language models of units as a library: the models, their files, what sequences are worth to them, and sampling."""
