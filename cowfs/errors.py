"""Every error that cowfs raises on purpose, in one tree.

The text of each is one line that a user can act on; ``mount`` gives each leaf an errno, ``cli`` an exit code.

    CowfsError
    ├── DatabaseError              the bytes on disk are not what they should be
    │   ├── NotADatabase           no LMDB environment is here (foreign, empty or missing file)
    │   ├── CorruptDatabase        an LMDB file with a damaged or missing page; names the page
    │   └── UnsupportedFormat      a data version, or a cowfs format, that this cowfs does not read
    ├── InputError                 the caller asked for something that cannot be
    │   ├── SchemaError            an attribute's definition is wrong, or cannot be changed so
    │   ├── TransactionError       a form of the transaction data is wrong; names form, attribute, reason
    │   ├── EntityTaken            an import names an entity that is not of its own making
    │   ├── NotFound               no such entity, attribute, snapshot or name
    │   ├── WrongName              a snapshot cannot have that name
    │   ├── NameTaken              a snapshot has that name already
    │   ├── ReadOnly               that path cannot be written
    │   ├── InvalidTarget             a directory cannot be used for what was asked (mount point, target of a restore)
    │   └── Closed                 a store, or something read from it, was used after it was closed
    └── SystemFailure              the machine said no
        ├── AccessDenied           no permission
        ├── DiskFull               no room left; nothing was committed
        ├── ReadersFull            all reader slots of the environment are taken
        ├── Busy                   somebody else is writing just now; try again
        ├── EnvironmentFailure     LMDB or the operating system failed in another way
        └── MountError             FUSE could not mount or unmount
"""


class CowfsError(Exception):
    """Root of the tree: every error that cowfs raises on purpose."""


class DatabaseError(CowfsError):
    """The bytes on disk are not what they should be."""


class NotADatabase(DatabaseError):
    """No LMDB environment is here: a foreign, empty or missing file."""


class CorruptDatabase(DatabaseError):
    """An LMDB file with a damaged or missing page.

    ``page`` is the number of the page, or None where the damage is not in one page. ``findings`` has a line for each
    damage, where a whole database was checked.
    """

    def __init__(self, message: str, page: int | None = None, findings: tuple[str, ...] = ()) -> None:
        super().__init__(message if page is None else f"page {page}: {message}")
        self.page = page
        self.findings = findings


class UnsupportedFormat(DatabaseError):
    """A data version of LMDB, or a format of cowfs, that this cowfs does not read."""


class InputError(CowfsError):
    """The caller asked for something that cannot be."""


class SchemaError(InputError):
    """An attribute's definition is wrong, or cannot be changed that way."""


class TransactionError(InputError):
    """A form of the transaction data is wrong; nothing of the transaction was done.

    ``form`` is the index of the form in the transaction data, None where it is not one form's fault.
    """

    def __init__(self, message: str, form: int | None = None) -> None:
        super().__init__(message)
        self.form = form


class EntityTaken(InputError):
    """A form of an import names an entity that had data before; nothing of the transaction was done.

    ``form`` is the index of the form in the transaction data, None where it is not known. ``in_import`` says that the data
    is of the same import, from an earlier file.
    """

    def __init__(self, message: str, form: int | None = None, *, in_import: bool = False) -> None:
        super().__init__(message)
        self.form = form
        self.in_import = in_import


class NotFound(InputError):
    """There is no such entity, attribute, snapshot or name."""


class WrongName(InputError):
    """A snapshot cannot have that name."""


class NameTaken(InputError):
    """A snapshot has that name already."""


class ReadOnly(InputError):
    """That path cannot be written."""


class InvalidTarget(InputError):
    """A directory cannot be used for what was asked of it."""


class Closed(InputError):
    """A store, a Db, a reader or a transaction was used after it was closed."""


class SystemFailure(CowfsError):
    """The machine said no."""


class AccessDenied(SystemFailure):
    """The user has no permission for that."""


class DiskFull(SystemFailure):
    """The filesystem has no room left; nothing was committed."""


class ReadersFull(SystemFailure):
    """All reader slots of the environment are taken."""


class Busy(SystemFailure):
    """Somebody else is writing just now; try again."""


class EnvironmentFailure(SystemFailure):
    """LMDB or the operating system failed in a way that has no name of its own here."""


class MountError(SystemFailure):
    """FUSE could not mount or unmount."""
