"""``python -m pmp_ref`` is the command ``pmp-ref``."""

import sys

from pmp_ref.app.main import main

sys.exit(main())
