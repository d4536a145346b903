"""`python -m amstel` is the command `amstel`."""

import sys

from amstel.cli import main

sys.exit(main())
