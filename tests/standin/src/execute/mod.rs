//! What each statement does, on behalf of one session.

mod catalog;
mod resolve;
mod scalars;

use std::sync::Arc;

use rusqlite::Connection;

use crate::engine::{CatalogError, Engine};
use crate::error::ServerError;
use crate::password;
use crate::statements::{ColumnDefinition, Exists, Statement, parse};
use crate::storage::Fault;
use crate::storage::database::{Lease, write_log_into_file};
use crate::storage::table::{self, Rows};
use crate::tds::reply::{Command, Reply};
use crate::value::{Column, SqlType, Value};
use resolve::{filters, resolve, resolve_row, selection};

/// A session's state between its statements.
pub struct Session {
    engine: Arc<Engine>,
    /// The database its statements mean.
    pub database: String,
    home: String,
    transaction: Option<Transaction>,
    transactions: u64,
    /// Set by SHUTDOWN: the engine stops once the reply is sent.
    pub shutdown: Option<bool>,
}

struct Transaction {
    id: u64,
    depth: i64,
    /// From the first write on, the sole use of the database that is written.
    lease: Option<Lease>,
}

/// The parameters that a call brought.
pub type Parameters = Vec<(String, Value)>;

impl Session {
    /// A session that has just logged in to `database`.
    pub fn new(engine: Arc<Engine>, database: String) -> Self {
        Self {
            engine,
            home: database.clone(),
            database,
            transaction: None,
            transactions: 0,
            shutdown: None,
        }
    }

    /// Back to the state after the login, for the next user of a connection pool.
    pub fn reset(&mut self, reply: &mut Reply) {
        self.transaction = None;
        self.database.clone_from(&self.home);
        reply.reset();
    }

    /// After a request that was given up: what it did last is unknown, so its transaction ends.
    pub fn abandon(&mut self, reply: &mut Reply) {
        if let Some(transaction) = self.transaction.take() {
            reply.transaction_rolled_back(transaction.id);
        }
    }

    /// Runs a batch and writes its answer; yields the error that ended it.
    pub async fn batch(&mut self, sql: &str, parameters: &Parameters, reply: &mut Reply) -> Result<(), ServerError> {
        let result = self.statements(sql, parameters, reply).await;
        if let Err(error) = &result {
            reply.failed(error);
        }
        result
    }

    async fn statements(&mut self, sql: &str, parameters: &Parameters, reply: &mut Reply) -> Result<(), ServerError> {
        let statements = parse(sql)?;
        let count = statements.len();
        if count == 0 {
            reply.statement_done(Command::None, None, true);
        }
        for (index, mut statement) in statements.into_iter().enumerate() {
            while let Statement::Unless(condition, then) = statement {
                statement = if self.is_there(&condition, parameters).await? {
                    Statement::Set
                } else {
                    *then
                };
            }
            match self.run(statement, parameters, reply).await? {
                Answer::Nothing => reply.statement_done(Command::None, None, index + 1 == count),
                Answer::Affected(command, rows) => reply.statement_done(command, Some(rows), index + 1 == count),
                Answer::Rows(Rows { columns, rows }) => {
                    reply.columns(&columns);
                    for row in &rows {
                        reply.row(&columns, row);
                    }
                    reply.statement_done(Command::Select, Some(rows.len() as u64), index + 1 == count);
                }
            }
        }
        Ok(())
    }

    async fn run(
        &mut self,
        statement: Statement,
        parameters: &Parameters,
        reply: &mut Reply,
    ) -> Result<Answer, ServerError> {
        match statement {
            Statement::Scalars(scalars) => self.scalars(&scalars, parameters).map(Answer::Rows),
            Statement::Databases(query) => self.list_databases(&selection(query, parameters)?).map(Answer::Rows),
            Statement::VolumeStats { database, file, query } => {
                let (database, file) = (resolve(&database, parameters)?, resolve(&file, parameters)?);
                let selection = selection(query, parameters)?;
                self.volume_stats(&database, &file, &selection).await.map(Answer::Rows)
            }
            Statement::StartTime => Ok(Answer::Rows(one_row(
                SqlType::NVarChar(33),
                Value::Text(self.engine.started.clone()),
            ))),
            Statement::Select { table, query } => {
                let selection = selection(query, parameters)?;
                self.read(move |c| table::select(c, &table, &selection))
                    .await
                    .map(Answer::Rows)
            }
            Statement::Insert { table, columns, rows } => {
                let rows = rows
                    .iter()
                    .map(|row| resolve_row(row, columns.len(), parameters))
                    .collect::<Result<Vec<_>, _>>()?;
                let count = self.write(move |c| table::insert(c, &table, &columns, &rows)).await?;
                Ok(Answer::Affected(Command::Insert, count))
            }
            Statement::Delete { table, conditions } => {
                let filters = filters(conditions, parameters)?;
                let count = self.write(move |c| table::delete(c, &table, &filters)).await?;
                Ok(Answer::Affected(Command::Delete, count))
            }
            Statement::CreateTable { table, columns, key } => self.create_table(table, columns, key).await,
            Statement::DropTable(table) => {
                self.write(move |c| table::drop(c, &table)).await?;
                Ok(Answer::Nothing)
            }
            Statement::CreateDatabase(name) => self.create_database(&name).await,
            Statement::DropDatabase(name) => self.drop_database(&name).await,
            Statement::Unless(..) => unreachable!("conditions are resolved before a statement is run"),
            Statement::Use(name) => {
                let database = self
                    .engine
                    .database(&name)
                    .ok_or_else(|| ServerError::no_database(&name))?;
                reply.database_changed(&database.name, &self.database);
                self.database.clone_from(&database.name);
                Ok(Answer::Nothing)
            }
            Statement::Set => Ok(Answer::Nothing),
            Statement::Begin => {
                self.begin(reply);
                Ok(Answer::Nothing)
            }
            Statement::Commit => self.commit(reply).await.map(|()| Answer::Nothing),
            Statement::Rollback => self.roll_back(reply).map(|()| Answer::Nothing),
            Statement::Checkpoint => {
                self.outside_transaction("CHECKPOINT")?;
                self.read(write_log_into_file).await?;
                Ok(Answer::Nothing)
            }
            Statement::Shutdown { checkpoint } => {
                self.shutdown = Some(checkpoint);
                Ok(Answer::Nothing)
            }
            Statement::AlterLogin {
                login,
                password,
                old_password,
            } => {
                let old_password = old_password.as_ref().map(|old| resolve(old, parameters)).transpose()?;
                self.alter_login(&login, resolve(&password, parameters)?, old_password)
                    .await
            }
        }
    }

    /// Starts a transaction, or goes one level deeper.
    pub fn begin(&mut self, reply: &mut Reply) {
        if let Some(transaction) = &mut self.transaction {
            transaction.depth += 1;
            return;
        }
        self.transactions += 1;
        self.transaction = Some(Transaction {
            id: self.transactions,
            depth: 1,
            lease: None,
        });
        reply.transaction_began(self.transactions);
    }

    /// Ends a level; the outermost commits, and answers only after that has reached the disk.
    pub async fn commit(&mut self, reply: &mut Reply) -> Result<(), ServerError> {
        let mut transaction = self.transaction.take().ok_or_else(ServerError::nothing_to_commit)?;
        if transaction.depth > 1 {
            transaction.depth -= 1;
            self.transaction = Some(transaction);
            return Ok(());
        }
        if let Some(lease) = transaction.lease {
            let name = lease.database.name.clone();
            let (_, result) = lease.run(|c| Ok(c.execute_batch("COMMIT")?)).await;
            result.map_err(|fault| ServerError::from_fault(fault, &name))?;
        }
        reply.transaction_committed(transaction.id);
        Ok(())
    }

    /// Undoes the transaction; dropping its lease does that.
    pub fn roll_back(&mut self, reply: &mut Reply) -> Result<(), ServerError> {
        let transaction = self.transaction.take().ok_or_else(ServerError::nothing_to_roll_back)?;
        reply.transaction_rolled_back(transaction.id);
        Ok(())
    }

    fn outside_transaction(&self, what: &str) -> Result<(), ServerError> {
        if self.transaction.is_some() {
            Err(ServerError::not_in_transaction(what))
        } else {
            Ok(())
        }
    }

    /// A statement that leaves no lock behind.
    async fn read<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ServerError> {
        self.with_lease(false, work).await
    }

    /// A statement that writes; in a transaction it keeps the database to itself until the end.
    async fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ServerError> {
        self.with_lease(true, work).await
    }

    async fn with_lease<T: Send + 'static>(
        &mut self,
        writes: bool,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ServerError> {
        let name = self.database.clone();
        let fail = |fault| ServerError::from_fault(fault, &name);
        let mut held = self
            .transaction
            .as_mut()
            .and_then(|transaction| transaction.lease.take());
        if let Some(lease) = &held
            && lease.database.name != name
        {
            let first = lease.database.name.clone();
            if writes {
                self.keep(held);
                return Err(ServerError::one_database_a_transaction(&first));
            }
            self.keep(held.take());
        }
        let keeps = held.is_some() || (writes && self.transaction.is_some());
        let lease = if let Some(lease) = held {
            lease
        } else {
            let database = self
                .engine
                .database(&name)
                .ok_or_else(|| ServerError::no_database(&name))?;
            database.lease().await.map_err(fail)?
        };
        let (lease, result) = lease
            .run(move |connection| {
                if keeps && connection.is_autocommit() {
                    connection.execute_batch("BEGIN IMMEDIATE")?;
                }
                work(connection)
            })
            .await;
        if keeps {
            // a full volume makes SQLite roll back on its own: the transaction must not go on without its first part
            match lease {
                Some(lease) if lease.in_transaction() => self.keep(Some(lease)),
                _ => self.transaction = None,
            }
        }
        result.map_err(fail)
    }

    fn keep(&mut self, lease: Option<Lease>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.lease = lease;
        }
    }

    async fn is_there(&mut self, condition: &Exists, parameters: &Parameters) -> Result<bool, ServerError> {
        match condition {
            Exists::Database(name) => Ok(match resolve(name, parameters)? {
                Value::Text(name) => self.engine.database(&name).is_some(),
                Value::Int(_) | Value::Null => false,
            }),
            Exists::Table(name) => {
                let Value::Text(name) = resolve(name, parameters)? else {
                    return Ok(false);
                };
                let table = name
                    .rsplit('.')
                    .next()
                    .unwrap_or_default()
                    .trim_matches(['[', ']'])
                    .to_owned();
                self.read(move |c| table::exists(c, &table)).await
            }
        }
    }

    async fn create_table(
        &mut self,
        table: String,
        columns: Vec<ColumnDefinition>,
        key: Vec<String>,
    ) -> Result<Answer, ServerError> {
        self.write(move |c| table::create(c, &table, &columns, &key)).await?;
        Ok(Answer::Nothing)
    }

    async fn create_database(&mut self, name: &str) -> Result<Answer, ServerError> {
        self.outside_transaction("CREATE DATABASE")?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() || name.len() > 100 || !plain {
            return Err(ServerError::bad_database_name(name));
        }
        self.engine
            .create_database(name)
            .await
            .map_err(|error| catalog_error(error, name))?;
        Ok(Answer::Nothing)
    }

    async fn drop_database(&mut self, name: &str) -> Result<Answer, ServerError> {
        self.outside_transaction("DROP DATABASE")?;
        self.engine
            .drop_database(name)
            .await
            .map_err(|error| catalog_error(error, name))?;
        Ok(Answer::Nothing)
    }

    async fn alter_login(&mut self, login: &str, new: Value, old: Option<Value>) -> Result<Answer, ServerError> {
        let proves = match &old {
            None => true,
            Some(Value::Text(old)) => self.engine.is_password(login, old),
            Some(_) => false,
        };
        if !login.eq_ignore_ascii_case("sa") || !proves {
            return Err(ServerError::cannot_alter_login(login));
        }
        let Value::Text(new) = new else {
            return Err(ServerError::weak_password("It is not a text."));
        };
        if let Some(weakness) = password::weakness(&new) {
            return Err(ServerError::weak_password(weakness));
        }
        self.engine
            .set_password(&new)
            .await
            .map_err(|fault| ServerError::from_fault(fault, "master"))?;
        Ok(Answer::Nothing)
    }
}

enum Answer {
    Nothing,
    Affected(Command, u64),
    Rows(Rows),
}

fn one_row(sql_type: SqlType, value: Value) -> Rows {
    Rows {
        columns: vec![Column {
            name: String::new(),
            sql_type,
        }],
        rows: vec![vec![value]],
    }
}

fn catalog_error(error: CatalogError, name: &str) -> ServerError {
    match error {
        CatalogError::Exists => ServerError::database_exists(name),
        CatalogError::Missing => ServerError::cannot_drop_database(name),
        CatalogError::System => ServerError::system_database(name),
        CatalogError::Fault(fault) => ServerError::from_fault(fault, name),
    }
}
