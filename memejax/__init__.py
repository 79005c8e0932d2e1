"""memejax: is this meme hateful?"""

__version__ = "0.1.0"
