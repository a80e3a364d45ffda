//! The errors a client sees, with the numbers of the real engine so that programs cannot tell the difference.

use crate::storage::Fault;

/// An error as the wire carries it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ServerError {
    /// Message number.
    pub number: i32,
    /// State.
    pub state: u8,
    /// Severity; from 20 on the connection ends with it.
    pub class: u8,
    /// What the user reads.
    pub text: String,
}

impl ServerError {
    fn new(number: i32, class: u8, text: impl Into<String>) -> Self {
        Self {
            number,
            state: 1,
            class,
            text: text.into(),
        }
    }

    /// True when the engine closes the connection after this error.
    pub fn ends_session(&self) -> bool {
        self.class >= 20
    }

    /// A statement outside the table, named.
    pub fn unknown_statement(near: &str, statement: &str) -> Self {
        let shown: String = statement.chars().take(200).collect();
        Self::new(
            102,
            15,
            format!("Incorrect syntax near '{near}'. The stand-in does not know the statement: {shown}"),
        )
    }

    /// Wrong user or password.
    pub fn login_failed(user: &str) -> Self {
        Self::new(18456, 14, format!("Login failed for user '{user}'."))
    }

    /// A login before recovery has ended.
    pub fn recovering(user: &str) -> Self {
        let reason = "Server is in script upgrade mode. Only administrator can connect at this time.";
        Self::new(18401, 14, format!("Login failed for user '{user}'. Reason: {reason}"))
    }

    /// A login during the shutdown, or a statement that met it.
    pub fn shutting_down() -> Self {
        Self::new(6005, 14, "SHUTDOWN is in progress.")
    }

    /// A login to a database that is not there.
    pub fn cannot_open_database(name: &str) -> Self {
        let text = format!("Cannot open database \"{name}\" requested by the login. The login failed.");
        Self::new(4060, 11, text)
    }

    /// `USE` or a statement in a database that is not there.
    pub fn no_database(name: &str) -> Self {
        let text = format!("Database '{name}' does not exist. Make sure that the name is entered correctly.");
        Self::new(911, 16, text)
    }

    /// `DROP DATABASE` of one that is not there.
    pub fn cannot_drop_database(name: &str) -> Self {
        let text =
            format!("Cannot drop the database '{name}', because it does not exist or you do not have permission.");
        Self::new(3701, 11, text)
    }

    /// `DROP DATABASE` of a system database.
    pub fn system_database(name: &str) -> Self {
        Self::new(
            3708,
            16,
            format!("Cannot drop the database '{name}' because it is a system database."),
        )
    }

    /// `CREATE DATABASE` of one that is there.
    pub fn database_exists(name: &str) -> Self {
        Self::new(
            1801,
            16,
            format!("Database '{name}' already exists. Choose a different database name."),
        )
    }

    /// A name that cannot be a file's.
    pub fn bad_database_name(name: &str) -> Self {
        let text = format!("The stand-in takes letters, digits and '_' in a database name, not '{name}'.");
        Self::new(1802, 16, text)
    }

    /// A lock that another session held too long.
    pub fn lock_timeout() -> Self {
        Self::new(1222, 16, "Lock request time out period exceeded.")
    }

    /// COMMIT without BEGIN.
    pub fn nothing_to_commit() -> Self {
        Self::new(
            3902,
            16,
            "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.",
        )
    }

    /// ROLLBACK without BEGIN.
    pub fn nothing_to_roll_back() -> Self {
        Self::new(
            3903,
            16,
            "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
        )
    }

    /// A statement that may not stand between BEGIN and COMMIT.
    pub fn not_in_transaction(what: &str) -> Self {
        Self::new(
            226,
            16,
            format!("{what} statement not allowed within multi-statement transaction."),
        )
    }

    /// A transaction that wants to write a second database; the real engine can, this one cannot.
    pub fn one_database_a_transaction(first: &str) -> Self {
        let text = format!("The stand-in keeps a transaction in one database, and this one has written in '{first}'.");
        Self::new(3933, 16, text)
    }

    /// A parameter that the call does not bring.
    pub fn undeclared(name: &str) -> Self {
        Self::new(137, 15, format!("Must declare the scalar variable \"{name}\"."))
    }

    /// A procedure other than `sp_executesql`.
    pub fn no_procedure(name: &str) -> Self {
        Self::new(2812, 16, format!("Could not find stored procedure '{name}'."))
    }

    /// A parameter of a type that the stand-in does not know.
    pub fn parameter_type(number: u8) -> Self {
        Self::new(
            8009,
            16,
            format!("The stand-in does not know the data type 0x{number:02X} of a parameter."),
        )
    }

    /// A request of the transaction manager other than begin, commit and roll back.
    pub fn transaction_request(kind: u16) -> Self {
        Self::new(
            3999,
            16,
            format!("The stand-in does not know the transaction manager request {kind}."),
        )
    }

    /// A row with more or fewer values than columns.
    pub fn value_count() -> Self {
        let text = "The number of columns in the INSERT statement must match the number of values specified.";
        Self::new(10709, 15, text)
    }

    /// A new password that breaks the rule.
    pub fn weak_password(why: &str) -> Self {
        Self::new(15118, 16, format!("Password validation failed. {why}"))
    }

    /// `ALTER LOGIN` of another login, or with a wrong old password.
    pub fn cannot_alter_login(name: &str) -> Self {
        let text = format!("Cannot alter the login '{name}', because it does not exist or you do not have permission.");
        Self::new(15151, 16, text)
    }

    /// What storage said about a statement in `database`.
    pub fn from_fault(fault: Fault, database: &str) -> Self {
        match fault {
            Fault::Io(what) => Self::new(
                823,
                24,
                format!(
                    "The operating system returned an error to the stand-in in database '{database}': {what}. The \
                     database is suspect until a restart."
                ),
            ),
            Fault::Corrupt(what) => {
                let text =
                    format!("The stand-in detected a logical consistency-based I/O error in '{database}': {what}.");
                Self::new(824, 24, text)
            }
            Fault::Suspect => Self::new(
                9001,
                21,
                format!(
                    "The log for database '{database}' is not available. Check the error log for related messages, \
                     resolve any errors and restart the database."
                ),
            ),
            Fault::Full => Self::new(
                9002,
                17,
                format!("The transaction log for database '{database}' is full: no space is left on its volume."),
            ),
            Fault::Duplicate(what) => Self::new(
                2627,
                14,
                format!("Violation of PRIMARY KEY constraint. Cannot insert duplicate key: {what}."),
            ),
            Fault::NullNotAllowed(column) => {
                Self::new(515, 16, format!("Cannot insert the value NULL into column '{column}'."))
            }
            Fault::WrongValue(what) => Self::new(8114, 16, format!("Error converting data type: {what}.")),
            Fault::NoTable(name) => Self::new(208, 16, format!("Invalid object name '{name}'.")),
            Fault::NoColumn(name) => Self::new(207, 16, format!("Invalid column name '{name}'.")),
            Fault::TableExists(name) => Self::new(
                2714,
                16,
                format!("There is already an object named '{name}' in the database."),
            ),
            Fault::LockTimeout => Self::lock_timeout(),
            Fault::Closed => Self::shutting_down(),
            Fault::Other(what) => Self::new(
                50000,
                16,
                format!("The stand-in's storage refused the statement: {what}."),
            ),
        }
    }
}
