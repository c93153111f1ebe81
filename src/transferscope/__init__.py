"""What does a pre-trained network pass on when it is fine-tuned?"""

__version__ = "0.1.0"
