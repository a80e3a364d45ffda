// Command go logs in to a stand-in with go-mssqldb, writes rows and reads them back.
//
//	go ADDRESS PASSWORD ENCRYPT COUNT
//
// ENCRYPT is disable, false (login only) or true. It prints how many rows the table has, or the number and text of
// the error that the server sent, with exit code 3.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
)

func main() {
	rows, err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	var refused mssql.Error
	switch {
	case errors.As(err, &refused):
		fmt.Printf("error %d: %s\n", refused.Number, refused.Message)
		os.Exit(3)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("rows %d\n", rows)
}

func run(address, password, encrypt, count string) (int64, error) {
	wanted, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return 0, err
	}
	source := url.URL{
		Scheme:   "sqlserver",
		User:     url.UserPassword("sa", password),
		Host:     address,
		RawQuery: url.Values{"encrypt": {encrypt}, "TrustServerCertificate": {"true"}, "dial timeout": {"5"}}.Encode(),
	}
	pool, err := sql.Open("sqlserver", source.String())
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	table := `IF OBJECT_ID('dbo.from_go','U') IS NULL
		CREATE TABLE dbo.from_go (epoch BIGINT NOT NULL, seq BIGINT NOT NULL, note NVARCHAR(20), PRIMARY KEY (epoch, seq))`
	if _, err := pool.ExecContext(ctx, table); err != nil {
		return 0, err
	}
	var before int64
	if err := pool.QueryRowContext(ctx, "SELECT COUNT_BIG(*) FROM dbo.from_go").Scan(&before); err != nil {
		return 0, err
	}
	for seq := before; seq < before+wanted; seq++ {
		if err := insert(ctx, pool, seq); err != nil {
			return 0, err
		}
	}
	if err := forget(ctx, pool, before+wanted); err != nil {
		return 0, err
	}
	var note string
	last := before + wanted - 1
	if err := pool.QueryRowContext(ctx, "SELECT note FROM dbo.from_go WHERE seq = @p1", last).Scan(&note); err != nil {
		return 0, err
	}
	if note != fmt.Sprintf("row %d ü", last) {
		return 0, fmt.Errorf("row %d came back with the note %q", last, note)
	}
	var version string
	if err := pool.QueryRowContext(ctx, "SELECT SERVERPROPERTY('ProductVersion')").Scan(&version); err != nil {
		return 0, err
	}
	var rows int64
	err = pool.QueryRowContext(ctx, "SELECT COUNT_BIG(*) FROM dbo.from_go").Scan(&rows)
	return rows, err
}

// insert writes a row in a transaction of its own, which go-mssqldb begins and commits without statements.
func insert(ctx context.Context, pool *sql.DB, seq int64) error {
	transaction, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = transaction.Rollback() }()
	statement := "INSERT INTO dbo.from_go (epoch, seq, note) VALUES (@p1, @p2, @p3)"
	if _, err := transaction.ExecContext(ctx, statement, 1, seq, fmt.Sprintf("row %d ü", seq)); err != nil {
		return err
	}
	return transaction.Commit()
}

// forget writes a row and rolls it back.
func forget(ctx context.Context, pool *sql.DB, seq int64) error {
	transaction, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = transaction.ExecContext(ctx, "INSERT INTO dbo.from_go (epoch, seq) VALUES (1, @p1)", seq)
	return errors.Join(err, transaction.Rollback())
}
