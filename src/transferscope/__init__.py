"""What does a pre-trained network pass on when it is fine-tuned?"""

from transferscope.system import renamed

__version__ = "0.2.0.dev0"

renamed.install()
