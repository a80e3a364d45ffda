"""Logs in to a stand-in with python-tds, writes rows and reads them back.

usage: driver.py HOST PORT PASSWORD AUTOCOMMIT COUNT

AUTOCOMMIT is yes or no. Prints how many rows the table has, or the number and text of the error that the server sent,
with exit code 3.
"""

import sys

import pytds


def run(host: str, port: int, password: str, autocommit: bool, count: int) -> int:
    with pytds.connect(
        dsn=host, port=port, database="master", user="sa", password=password,
        login_timeout=5, timeout=20, autocommit=autocommit,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "IF OBJECT_ID('dbo.from_python','U') IS NULL CREATE TABLE dbo.from_python"
            " (epoch BIGINT NOT NULL, seq BIGINT NOT NULL, note NVARCHAR(20), PRIMARY KEY (epoch, seq))"
        )
        cursor.execute("SELECT COUNT(*) FROM dbo.from_python")
        before = cursor.fetchone()[0]
        for seq in range(before, before + count):
            cursor.execute(
                "INSERT INTO dbo.from_python (epoch, seq, note) VALUES (%s, %s, %s)", (1, seq, f"row {seq} ü")
            )
        if not autocommit:
            connection.commit()
            cursor.execute("INSERT INTO dbo.from_python (epoch, seq) VALUES (2, 0)")
            connection.rollback()
        cursor.execute("SELECT seq, note FROM dbo.from_python ORDER BY epoch, seq")
        rows = cursor.fetchall()
        expected = [(seq, f"row {seq} ü") for seq in range(before + count)]
        if [tuple(row) for row in rows] != expected:
            raise SystemExit(f"expected {expected}, read {rows}")
        cursor.execute("SELECT SERVERPROPERTY('ProductVersion')")
        if cursor.fetchone()[0] != "16.0.5100.7245":
            raise SystemExit("the version came back wrong")
        return len(rows)


def main() -> None:
    host, port, password, autocommit, count = sys.argv[1:]
    try:
        print("rows", run(host, int(port), password, autocommit == "yes", int(count)))
    except pytds.DatabaseError as error:
        print(f"error {getattr(error, 'msg_no', 0)}: {error}")
        raise SystemExit(3) from error


main()
