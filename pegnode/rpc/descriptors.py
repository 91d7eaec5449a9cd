"""The checksum that descriptors carry where they are handed to people. Source: BIP380."""

_INPUT_CHARACTERS = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
_CHECKSUM_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
_CHECKSUM_LENGTH = 8


def with_checksum(descriptor: str) -> str:
    """The descriptor, `#` and its 8 characters. Raises ValueError for a character that no descriptor holds."""
    symbols: list[int] = []
    groups: list[int] = []
    for character in descriptor:
        position = _INPUT_CHARACTERS.index(character)
        symbols.append(position & 31)
        groups.append(position >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if len(groups) == 1:
        symbols.append(groups[0])
    elif len(groups) == 2:
        symbols.append(groups[0] * 3 + groups[1])
    checksum = _polymod([*symbols, *[0] * _CHECKSUM_LENGTH]) ^ 1
    text = "".join(
        _CHECKSUM_CHARACTERS[(checksum >> (5 * (_CHECKSUM_LENGTH - 1 - index))) & 31]
        for index in range(_CHECKSUM_LENGTH)
    )
    return f"{descriptor}#{text}"


def _polymod(symbols: list[int]) -> int:
    checksum = 1
    for symbol in symbols:
        top = checksum >> 35
        checksum = (checksum & 0x7FFFFFFFF) << 5 ^ symbol
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum
