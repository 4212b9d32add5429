"""Writes a migration for changed models, with a temporary PostgreSQL: `make migration NAME="add company"`."""

import atexit
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

from alembic import command
from alembic.config import Config

from contacts_api.database import embedded

directory = Path(mkdtemp())
# Exit handlers run in reverse order, so this runs after the server has stopped.
atexit.register(shutil.rmtree, directory)
config = Config(Path(__file__).parent.parent / "alembic.ini")
config.attributes["url"] = embedded.start(directory)
command.upgrade(config, "head")
command.revision(config, sys.argv[1], autogenerate=True)
